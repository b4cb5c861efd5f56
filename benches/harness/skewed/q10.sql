-- Running revenue of each region by day.
SELECT s_region, e_day, amount, sum(amount) OVER (PARTITION BY s_region ORDER BY e_day) AS so_far,
       rank() OVER (PARTITION BY s_region ORDER BY amount DESC, e_day) AS best
FROM (
  SELECT s_region, e_day, sum(e_amount) AS amount
  FROM events JOIN shops ON e_shop = s_id
  WHERE e_kind = 'buy' AND s_tier < 4
  GROUP BY s_region, e_day
) daily
ORDER BY s_region, e_day
