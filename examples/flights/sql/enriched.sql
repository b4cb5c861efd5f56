-- Each departure with the names behind its codes, its plane, and the weather of the hour it was scheduled for.
SELECT
  d.flight_date,
  d.carrier,
  c.name AS carrier_name,
  d.flight,
  d.tailnum,
  p.manufacturer AS plane_manufacturer,
  p.model AS plane_model,
  p.seats AS plane_seats,
  2013 - p.year AS plane_age,
  d.origin,
  o.name AS origin_name,
  d.dest,
  a.name AS dest_name,
  a.lat AS dest_lat,
  a.lon AS dest_lon,
  d.distance,
  d.dep_delay,
  d.arr_delay,
  d.air_time,
  -- Minutes made up in the air; negative where more were lost.
  d.dep_delay - d.arr_delay AS made_up,
  d.cancelled,
  d.diverted,
  w.temp,
  w.wind_speed,
  w.precip,
  w.visib,
  w.pressure,
  d.time_hour,
  d.month
FROM departures d
LEFT JOIN airlines c ON c.carrier = d.carrier
LEFT JOIN planes p ON p.tailnum = d.tailnum
LEFT JOIN airports o ON o.faa = d.origin
LEFT JOIN airports a ON a.faa = d.dest
LEFT JOIN weather w ON w.origin = d.origin AND w.time_hour = d.time_hour
