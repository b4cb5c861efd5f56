-- Best items of one day.
SELECT i_category, i_brand, e_item, sum(e_amount) AS amount, count(DISTINCT e_user) AS users
FROM events JOIN items ON e_item = i_id
WHERE e_day = DATE '2026-01-20' AND e_kind = 'buy'
GROUP BY i_category, i_brand, e_item
ORDER BY amount DESC, e_item
LIMIT 20
