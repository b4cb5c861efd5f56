-- Which kinds of parts come back, and what that costs.
WITH kinds AS (
  SELECT
    split_part(p.p_type, ' ', 3) AS material,
    split_part(p.p_container, ' ', 2) AS container,
    count(*) AS lines,
    sum(CASE WHEN l.l_returnflag = 'R' THEN 1 ELSE 0 END) AS returned,
    sum(CASE WHEN l.l_returnflag = 'R' THEN l.l_extendedprice * (1 - l.l_discount) ELSE 0 END) AS revenue_lost
  FROM lineitem l
  JOIN part p ON p.p_partkey = l.l_partkey
  -- Only lines old enough to have come back: the others have no verdict yet.
  WHERE l.l_returnflag <> 'N'
  GROUP BY 1, 2
)
SELECT
  material,
  container,
  lines,
  returned,
  CAST(returned AS DOUBLE) / lines AS return_share,
  revenue_lost,
  row_number() OVER (PARTITION BY material ORDER BY revenue_lost DESC, container) AS place_in_material
FROM kinds
ORDER BY material, place_in_material
