-- Year over year by market segment; the last year of the data is not whole, so each year counts to the last day that every year has.
WITH last_day AS (
  SELECT date_part('doy', max(orderdate)) AS doy FROM sales
),
yearly AS (
  SELECT
    s.segment,
    s.orderyear,
    count(DISTINCT s.custkey) AS customers,
    count(DISTINCT s.orderkey) AS orders,
    CAST(sum(s.revenue) AS DOUBLE) AS revenue
  FROM sales s
  CROSS JOIN last_day d
  WHERE date_part('doy', s.orderdate) <= d.doy
  GROUP BY s.segment, s.orderyear
)
SELECT
  segment,
  orderyear,
  customers,
  orders,
  revenue,
  revenue / orders AS revenue_per_order,
  revenue / lag(revenue) OVER (PARTITION BY segment ORDER BY orderyear) - 1 AS growth,
  revenue / sum(revenue) OVER (PARTITION BY orderyear) AS share_of_year
FROM yearly
ORDER BY segment, orderyear
