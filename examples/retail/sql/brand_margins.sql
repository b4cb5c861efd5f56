-- What is left of the revenue of a brand after what its parts cost at the supplier they came from.
WITH lines AS (
  SELECT p.p_brand AS brand, p.p_mfgr AS manufacturer, s.revenue, s.quantity * ps.ps_supplycost AS cost
  FROM sales s
  JOIN part p ON p.p_partkey = s.partkey
  JOIN partsupp ps ON ps.ps_partkey = s.partkey AND ps.ps_suppkey = s.suppkey
),
brands AS (
  SELECT
    manufacturer,
    brand,
    count(*) AS lines,
    sum(revenue) AS revenue,
    sum(cost) AS cost,
    sum(revenue) - sum(cost) AS margin
  FROM lines
  GROUP BY manufacturer, brand
)
SELECT
  *,
  CAST(margin AS DOUBLE) / CAST(revenue AS DOUBLE) AS margin_share,
  rank() OVER (PARTITION BY manufacturer ORDER BY margin DESC) AS place_in_manufacturer
FROM brands
ORDER BY manufacturer, place_in_manufacturer, brand
