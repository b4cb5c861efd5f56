-- Shops that sell above the average of their country.
SELECT s.s_id, s.s_country, t.amount
FROM shops s
JOIN (SELECT e_shop, sum(e_amount) AS amount FROM events WHERE e_kind = 'buy' GROUP BY e_shop) t ON s.s_id = t.e_shop
JOIN (
  SELECT s2.s_country AS country, avg(CAST(t2.amount AS DOUBLE)) AS usual
  FROM shops s2 JOIN (SELECT e_shop, sum(e_amount) AS amount FROM events WHERE e_kind = 'buy' GROUP BY e_shop) t2 ON s2.s_id = t2.e_shop
  GROUP BY s2.s_country
) c ON s.s_country = c.country
WHERE CAST(t.amount AS DOUBLE) > c.usual * 1.1
ORDER BY t.amount DESC, s.s_id
LIMIT 100
