-- Heavy users and what they sent back.
WITH heavy AS (
  SELECT e_user, sum(e_amount) AS spent, count(*) AS events
  FROM events
  WHERE e_kind = 'buy'
  GROUP BY e_user
  HAVING count(*) > 50
)
SELECT u_segment, u_country, count(*) AS users, sum(spent) AS spent, sum(sent_back) AS sent_back
FROM heavy
JOIN users ON e_user = u_id
LEFT JOIN (
  SELECT e.e_user AS returner, sum(r_amount) AS sent_back
  FROM returns JOIN events e ON r_event = e.e_id
  GROUP BY e.e_user
) back ON heavy.e_user = back.returner
GROUP BY u_segment, u_country
ORDER BY spent DESC, u_segment, u_country
LIMIT 50
