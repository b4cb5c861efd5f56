-- One row a line sold, with who bought it, where and when, and what it brought.
SELECT
  l.l_orderkey AS orderkey,
  o.o_custkey AS custkey,
  l.l_partkey AS partkey,
  l.l_suppkey AS suppkey,
  o.o_orderdate AS orderdate,
  CAST(date_part('year', o.o_orderdate) AS INT) AS orderyear,
  o.o_orderpriority AS priority,
  l.l_shipdate AS shipdate,
  c.c_mktsegment AS segment,
  n.n_name AS nation,
  r.r_name AS region,
  l.l_quantity AS quantity,
  l.l_extendedprice * (1 - l.l_discount) AS revenue
FROM lineitem l
JOIN orders o ON o.o_orderkey = l.l_orderkey
JOIN customer c ON c.c_custkey = o.o_custkey
JOIN nation n ON n.n_nationkey = c.c_nationkey
JOIN region r ON r.r_regionkey = n.n_regionkey
