-- Reach of each channel: distinct users behind a many-to-many join, pre-aggregated by hand nowhere.
SELECT c_channel, i_category, count(DISTINCT e_user) AS users
FROM events
JOIN items ON e_item = i_id
JOIN item_tags ON i_id = it_item
JOIN tag_campaigns ON it_tag = tc_tag
JOIN campaigns ON tc_campaign = c_id
WHERE c_budget > 8000 AND e_day >= DATE '2026-01-22' AND e_kind = 'cart' AND i_category IN ('category 1', 'category 2')
GROUP BY c_channel, i_category
ORDER BY c_channel, i_category
