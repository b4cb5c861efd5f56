-- How urgent are orders, and are urgent ones shipped sooner?
WITH orders_by_priority AS (
  SELECT
    o.o_orderpriority AS priority,
    CAST(date_part('year', o.o_orderdate) AS INT) AS orderyear,
    count(*) AS orders,
    sum(o.o_totalprice) AS total
  FROM orders o
  GROUP BY 1, 2
),
days_to_ship AS (
  SELECT priority, orderyear, avg((date_part('epoch', shipdate) - date_part('epoch', orderdate)) / 86400) AS days
  FROM sales
  GROUP BY priority, orderyear
)
SELECT
  p.priority,
  p.orderyear,
  p.orders,
  p.total,
  CAST(p.orders AS DOUBLE) / sum(p.orders) OVER (PARTITION BY p.orderyear) AS share_of_year,
  d.days AS days_to_ship_mean
FROM orders_by_priority p
LEFT JOIN days_to_ship d ON d.priority = p.priority AND d.orderyear = p.orderyear
ORDER BY p.orderyear, p.priority
