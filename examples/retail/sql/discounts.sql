-- Does a discount sell more? Lines, quantity and price by step of discount, and what it gave away.
SELECT
  l_discount AS discount,
  count(*) AS lines,
  sum(l_quantity) AS quantity,
  CAST(sum(l_quantity) AS DOUBLE) / count(*) AS quantity_per_line,
  CAST(sum(l_extendedprice) AS DOUBLE) / CAST(sum(l_quantity) AS DOUBLE) AS list_price_per_piece,
  sum(l_extendedprice * l_discount) AS given_away,
  CAST(sum(l_extendedprice * l_discount) AS DOUBLE) / CAST(sum(sum(l_extendedprice * l_discount)) OVER () AS DOUBLE) AS share_of_given_away
FROM lineitem
GROUP BY l_discount
ORDER BY discount
