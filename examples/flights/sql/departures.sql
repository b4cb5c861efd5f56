-- One row a scheduled departure: dates as dates, and what it means that a time is missing.
SELECT
  make_date(year, month, day) AS flight_date,
  month,
  carrier,
  flight,
  tailnum,
  origin,
  dest,
  distance,
  sched_dep_time,
  dep_delay,
  arr_delay,
  air_time,
  dep_time IS NULL AS cancelled,
  -- Left, but did not arrive where it should.
  dep_time IS NOT NULL AND arr_delay IS NULL AS diverted,
  time_hour
FROM flights
