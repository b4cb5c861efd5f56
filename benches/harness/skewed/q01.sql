-- Sales of each region: the hot shop makes one partition of the join forty times the others.
SELECT s_region, s_tier, count(*) AS events, sum(e_amount) AS amount
FROM events JOIN shops ON e_shop = s_id
WHERE e_kind = 'buy'
GROUP BY s_region, s_tier
ORDER BY s_region, s_tier
