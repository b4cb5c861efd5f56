-- The customers that revenue depends on: share of each, and of all down to it.
WITH totals AS (
  SELECT custkey, max(nation) AS nation, max(segment) AS segment, count(DISTINCT orderkey) AS orders, sum(revenue) AS revenue
  FROM sales
  GROUP BY custkey
),
ranked AS (
  SELECT
    row_number() OVER (ORDER BY revenue DESC, custkey) AS place,
    custkey,
    nation,
    segment,
    orders,
    revenue,
    CAST(revenue AS DOUBLE) / CAST(sum(revenue) OVER () AS DOUBLE) AS share,
    CAST(sum(revenue) OVER (ORDER BY revenue DESC, custkey ROWS UNBOUNDED PRECEDING) AS DOUBLE)
      / CAST(sum(revenue) OVER () AS DOUBLE) AS running_share
  FROM totals
)
SELECT r.place, c.c_name AS name, r.nation, r.segment, r.orders, r.revenue, r.share, r.running_share
FROM ranked r
JOIN customer c ON c.c_custkey = r.custkey
WHERE r.place <= $top
ORDER BY r.place
