-- How much of a delay does a plane hand on to its next departure of the day?
WITH legs AS (
  SELECT
    carrier,
    dep_delay,
    lag(arr_delay) OVER day AS arrived_late_by,
    row_number() OVER day AS leg
  FROM departures
  WHERE tailnum IS NOT NULL AND NOT cancelled
  WINDOW day AS (PARTITION BY tailnum, flight_date ORDER BY sched_dep_time, flight, origin)
)
SELECT
  carrier,
  leg,
  count(*) AS departures,
  avg(dep_delay) AS dep_delay_mean,
  avg(CASE WHEN arrived_late_by >= $late_minutes THEN dep_delay END) AS dep_delay_mean_after_late,
  avg(CASE WHEN arrived_late_by < $late_minutes THEN dep_delay END) AS dep_delay_mean_after_on_time
FROM legs
WHERE leg > 1
GROUP BY carrier, leg
ORDER BY carrier, leg
