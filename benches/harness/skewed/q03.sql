-- Many-to-many: events meet every campaign of every tag of their item.
SELECT c_channel, count(*) AS touches, sum(e_amount) AS amount
FROM events
JOIN item_tags ON e_item = it_item
JOIN tag_campaigns ON it_tag = tc_tag
JOIN campaigns ON tc_campaign = c_id
WHERE e_day BETWEEN DATE '2026-01-18' AND DATE '2026-01-19' AND e_kind = 'buy' AND e_country = 'DE'
GROUP BY c_channel
ORDER BY c_channel
