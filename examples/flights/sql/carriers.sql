-- Carriers by punctuality, each beside the mean of all.
WITH scores AS (
  SELECT
    c.carrier,
    c.name,
    count(*) AS flights,
    count(DISTINCT d.dest) AS destinations,
    sum(d.distance) AS miles,
    avg(d.arr_delay) AS arr_delay_mean,
    avg(CASE WHEN d.arr_delay < $late_minutes THEN 1.0 WHEN d.arr_delay IS NOT NULL THEN 0.0 END) AS on_time_share,
    avg(CASE WHEN d.cancelled THEN 1.0 ELSE 0.0 END) AS cancelled_share
  FROM departures d
  JOIN airlines c ON c.carrier = d.carrier
  GROUP BY c.carrier, c.name
)
SELECT
  rank() OVER (ORDER BY on_time_share DESC) AS place,
  *,
  CAST(flights AS DOUBLE) / sum(flights) OVER () AS flights_share,
  on_time_share - avg(on_time_share) OVER () AS on_time_share_above_mean
FROM scores
ORDER BY place, carrier
