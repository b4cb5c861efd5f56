-- Revenue by month and region of the customer, beside the month before and the same month a year before.
WITH monthly AS (
  SELECT
    region,
    CAST(date_trunc('month', orderdate) AS DATE) AS month,
    count(DISTINCT orderkey) AS orders,
    sum(revenue) AS revenue
  FROM sales
  GROUP BY 1, 2
)
SELECT
  region,
  month,
  orders,
  revenue,
  revenue - lag(revenue, 1) OVER (PARTITION BY region ORDER BY month) AS above_last_month,
  CAST(revenue AS DOUBLE) / CAST(lag(revenue, 12) OVER (PARTITION BY region ORDER BY month) AS DOUBLE) - 1 AS growth_in_a_year,
  sum(revenue) OVER (
    PARTITION BY region, date_part('year', month) ORDER BY month ROWS UNBOUNDED PRECEDING
  ) AS revenue_this_year
FROM monthly
ORDER BY region, month
