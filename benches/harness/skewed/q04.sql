-- Correlated filters: country and currency together keep far more rows than the product of both.
SELECT u_segment, count(*) AS events, sum(e_amount) AS amount, avg(e_quantity) AS quantity
FROM events JOIN users ON e_user = u_id JOIN shops ON e_shop = s_id
WHERE e_country = 'FR' AND e_currency = 'EUR' AND s_country = 'FR'
GROUP BY u_segment
ORDER BY u_segment
