-- The planes that cost their passengers the most minutes.
WITH tails AS (
  SELECT
    tailnum,
    max(carrier_name) AS carrier_name,
    max(plane_model) AS plane_model,
    max(plane_age) AS plane_age,
    count(*) AS flights,
    avg(arr_delay) AS arr_delay_mean,
    avg(CASE WHEN arr_delay >= $late_minutes THEN 1.0 ELSE 0.0 END) AS late_share,
    max(arr_delay) AS arr_delay_max
  FROM enriched
  WHERE arr_delay IS NOT NULL AND tailnum IS NOT NULL
  GROUP BY tailnum
  HAVING count(*) >= $min_flights
),
ranked AS (
  SELECT rank() OVER (ORDER BY arr_delay_mean DESC) AS place, * FROM tails
)
SELECT * FROM ranked WHERE place <= 50 ORDER BY place, tailnum
