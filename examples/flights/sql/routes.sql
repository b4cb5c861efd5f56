-- Delays by route and month, and how a month compares with the route's year.
WITH monthly AS (
  SELECT
    origin,
    dest,
    max(dest_name) AS dest_name,
    month,
    count(*) AS flights,
    sum(CASE WHEN cancelled THEN 1 ELSE 0 END) AS cancelled,
    avg(arr_delay) AS arr_delay_mean,
    avg(CASE WHEN arr_delay >= $late_minutes THEN 1.0 WHEN arr_delay IS NOT NULL THEN 0.0 END) AS late_share,
    sum(arr_delay) AS arr_delay_sum,
    count(arr_delay) AS arrived
  FROM enriched
  GROUP BY origin, dest, month
)
SELECT
  origin,
  dest,
  dest_name,
  month,
  flights,
  cancelled,
  arr_delay_mean,
  late_share,
  CAST(sum(arr_delay_sum) OVER route AS DOUBLE) / nullif(sum(arrived) OVER route, 0) AS arr_delay_mean_year
FROM monthly
WINDOW route AS (PARTITION BY origin, dest)
ORDER BY origin, dest, month
