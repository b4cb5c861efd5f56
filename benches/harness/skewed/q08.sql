-- Items bought by the same user on the same day in one shop: a self-join on a skewed key.
SELECT a.e_item AS item, b.e_item AS other, count(*) AS together
FROM events a JOIN events b ON a.e_user = b.e_user AND a.e_day = b.e_day
WHERE a.e_shop = 12 AND b.e_shop = 12 AND a.e_kind = 'buy' AND b.e_kind = 'buy' AND a.e_item < b.e_item
  AND a.e_day BETWEEN DATE '2026-01-20' AND DATE '2026-01-23'
GROUP BY a.e_item, b.e_item
ORDER BY together DESC, item, other
LIMIT 25
