-- Who bought most.
SELECT customer, city, count(*) AS orders, round(sum(total), 2) AS revenue
FROM enriched
GROUP BY customer, city
ORDER BY revenue DESC, customer
