-- Which suppliers' nations deliver after the day agreed on, and how late?
SELECT
  n.n_name AS supplier_nation,
  r.r_name AS supplier_region,
  count(*) AS lines,
  sum(CASE WHEN l.l_receiptdate > l.l_commitdate THEN 1 ELSE 0 END) AS late_lines,
  avg(CASE WHEN l.l_receiptdate > l.l_commitdate THEN 1.0 ELSE 0.0 END) AS late_share,
  avg(CASE WHEN l.l_receiptdate > l.l_commitdate
    THEN (date_part('epoch', l.l_receiptdate) - date_part('epoch', l.l_commitdate)) / 86400 END) AS days_late_mean,
  count(DISTINCT CASE WHEN l.l_receiptdate > l.l_commitdate THEN l.l_orderkey END) AS orders_hit
FROM lineitem l
JOIN supplier s ON s.s_suppkey = l.l_suppkey
JOIN nation n ON n.n_nationkey = s.s_nationkey
JOIN region r ON r.r_regionkey = n.n_regionkey
GROUP BY n.n_name, r.r_name
ORDER BY late_share DESC, supplier_nation
