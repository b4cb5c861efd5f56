-- Users who bought in a shop of their own country without ever sending anything back.
SELECT u_country, count(DISTINCT u_id) AS users
FROM users JOIN events ON u_id = e_user JOIN shops ON e_shop = s_id
WHERE s_country = u_country
  AND e_kind = 'buy'
  AND NOT EXISTS (SELECT 1 FROM returns JOIN events again ON r_event = again.e_id WHERE again.e_user = u_id AND r_reason = 'late')
GROUP BY u_country
ORDER BY u_country
