-- Ways to ship by year: how much goes that way, how long it takes, how often it is late.
SELECT
  l_shipmode AS mode,
  l_shipyear AS shipyear,
  count(*) AS lines,
  sum(l_quantity) AS quantity,
  avg((date_part('epoch', l_receiptdate) - date_part('epoch', l_shipdate)) / 86400) AS transit_days_mean,
  avg(CASE WHEN l_receiptdate > l_commitdate THEN 1.0 ELSE 0.0 END) AS late_share,
  CAST(count(*) AS DOUBLE) / sum(count(*)) OVER (PARTITION BY l_shipyear) AS share_of_year
FROM lineitem
GROUP BY l_shipmode, l_shipyear
ORDER BY shipyear, mode
