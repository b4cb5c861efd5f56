-- For how many days does the stock of a part last, at the pace of its last year? The scarcest parts first.
WITH last_day AS (
  SELECT max(l_shipdate) AS day FROM lineitem
),
shipped AS (
  SELECT l.l_partkey AS partkey, sum(l.l_quantity) AS quantity
  FROM lineitem l
  CROSS JOIN last_day d
  WHERE l.l_shipdate > d.day - INTERVAL '365' DAY
  GROUP BY l.l_partkey
),
stock AS (
  SELECT ps_partkey AS partkey, sum(ps_availqty) AS available, min(ps_supplycost) AS cheapest
  FROM partsupp
  GROUP BY ps_partkey
),
cover AS (
  SELECT
    p.p_partkey AS partkey,
    p.p_name AS name,
    k.available,
    s.quantity AS shipped_in_a_year,
    CAST(k.available AS DOUBLE) / CAST(s.quantity AS DOUBLE) * 365 AS days_of_cover,
    k.cheapest
  FROM shipped s
  JOIN stock k ON k.partkey = s.partkey
  JOIN part p ON p.p_partkey = s.partkey
),
ranked AS (
  SELECT row_number() OVER (ORDER BY days_of_cover, partkey) AS place, * FROM cover
)
SELECT * FROM ranked WHERE place <= $top ORDER BY place
