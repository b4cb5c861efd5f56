-- Every order since the day that the run was asked for, with its customer and its total.
SELECT
    o.order_id,
    o.ordered_on,
    c.name AS customer,
    c.city,
    o.item,
    o.quantity,
    round(o.quantity * o.unit_price, 2) AS total
FROM orders AS o
LEFT JOIN customers AS c ON c.customer_id = o.customer_id
WHERE o.ordered_on >= $since
