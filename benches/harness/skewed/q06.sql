-- Brand and category say the same: the second filter removes nothing.
SELECT e_day, count(*) AS events, sum(e_amount) AS amount
FROM events JOIN items ON e_item = i_id
WHERE i_brand = 'brand 3' AND i_category = 'category 3' AND e_quantity > 1
GROUP BY e_day
ORDER BY e_day
