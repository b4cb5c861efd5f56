-- Customers by the year of their first order: how many still buy in the years after, and what they spend.
WITH first_year AS (
  SELECT custkey, min(orderyear) AS cohort FROM sales GROUP BY custkey
),
active AS (
  SELECT
    f.cohort,
    s.orderyear - f.cohort AS years_later,
    count(DISTINCT s.custkey) AS customers,
    sum(s.revenue) AS revenue
  FROM sales s
  JOIN first_year f ON f.custkey = s.custkey
  GROUP BY f.cohort, s.orderyear - f.cohort
)
SELECT
  cohort,
  years_later,
  customers,
  CAST(customers AS DOUBLE) / first_value(customers) OVER (PARTITION BY cohort ORDER BY years_later) AS retained,
  revenue,
  CAST(revenue AS DOUBLE) / customers AS revenue_per_customer
FROM active
ORDER BY cohort, years_later
