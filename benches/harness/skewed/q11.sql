-- Why things come back, by segment, from the dear items only.
SELECT r_reason, u_segment, count(*) AS returns, sum(r_amount) AS amount, avg(CAST(r_amount AS DOUBLE) / CAST(e_amount AS DOUBLE)) AS share
FROM returns
JOIN events ON r_event = e_id
JOIN users ON e_user = u_id
JOIN items ON e_item = i_id
WHERE i_price > 50 AND r_day >= DATE '2026-01-10'
GROUP BY r_reason, u_segment
ORDER BY r_reason, u_segment
