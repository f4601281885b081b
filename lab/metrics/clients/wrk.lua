-- Makes wrk end with one line of JSON: counts, microseconds.
function done(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format(
    '{"requests": %d, "duration": %d, "connect": %d, "read": %d, "write": %d, "status": %d, "timeout": %d',
    summary.requests, summary.duration,
    errors.connect, errors.read, errors.write, errors.status, errors.timeout))
  for _, percentile in ipairs({50, 75, 90, 95, 99}) do
    io.write(string.format(', "p%d": %d', percentile, latency:percentile(percentile)))
  end
  io.write(string.format(', "max": %d}\n', latency.max))
end
