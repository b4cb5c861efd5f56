-- How much does each brand depend on few nations of suppliers? The sum of squared shares: 1 is one nation, 0.04 is 25 even ones.
WITH bought AS (
  SELECT p.p_brand AS brand, n.n_name AS nation, CAST(sum(l.l_extendedprice) AS DOUBLE) AS price
  FROM lineitem l
  JOIN part p ON p.p_partkey = l.l_partkey
  JOIN supplier s ON s.s_suppkey = l.l_suppkey
  JOIN nation n ON n.n_nationkey = s.s_nationkey
  GROUP BY p.p_brand, n.n_name
),
shares AS (
  SELECT
    brand,
    nation,
    price,
    price / sum(price) OVER (PARTITION BY brand) AS share,
    row_number() OVER (PARTITION BY brand ORDER BY price DESC, nation) AS place
  FROM bought
)
SELECT
  brand,
  count(*) AS nations,
  max(CASE WHEN place = 1 THEN nation END) AS largest_nation,
  max(share) AS largest_share,
  sum(CASE WHEN place <= 3 THEN share ELSE 0.0 END) AS share_of_three,
  sum(share * share) AS concentration
FROM shares
GROUP BY brand
ORDER BY concentration DESC, brand
