-- One row a day, with the mean of the week up to it.
WITH days AS (
  SELECT
    flight_date,
    count(*) AS flights,
    sum(CASE WHEN cancelled THEN 1 ELSE 0 END) AS cancelled,
    sum(CASE WHEN diverted THEN 1 ELSE 0 END) AS diverted,
    sum(CASE WHEN dep_delay >= $late_minutes THEN 1 ELSE 0 END) AS left_late,
    avg(dep_delay) AS dep_delay_mean,
    max(dep_delay) AS dep_delay_max
  FROM departures
  GROUP BY flight_date
)
SELECT
  *,
  CAST(cancelled AS DOUBLE) / flights AS cancelled_share,
  avg(flights) OVER week AS flights_week_mean,
  avg(dep_delay_mean) OVER week AS dep_delay_week_mean
FROM days
WINDOW week AS (ORDER BY flight_date ROWS BETWEEN 6 PRECEDING AND CURRENT ROW)
ORDER BY flight_date
