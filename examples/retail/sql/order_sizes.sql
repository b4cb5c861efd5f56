-- Orders in ten bands of equal number, by value: what the large ones are worth.
WITH sized AS (
  SELECT
    o.o_orderkey AS orderkey,
    o.o_totalprice AS total,
    ntile(10) OVER (ORDER BY o.o_totalprice, o.o_orderkey) AS band
  FROM orders o
),
lines AS (
  SELECT l_orderkey AS orderkey, count(*) AS lines, count(DISTINCT l_suppkey) AS suppliers FROM lineitem GROUP BY l_orderkey
)
SELECT
  s.band,
  count(*) AS orders,
  min(s.total) AS total_min,
  max(s.total) AS total_max,
  sum(s.total) AS total,
  CAST(sum(s.total) AS DOUBLE) / CAST(sum(sum(s.total)) OVER () AS DOUBLE) AS share,
  avg(l.lines) AS lines_mean,
  avg(l.suppliers) AS suppliers_mean
FROM sized s
JOIN lines l ON l.orderkey = s.orderkey
GROUP BY s.band
ORDER BY s.band
