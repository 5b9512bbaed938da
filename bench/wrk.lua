-- Lets wrk post what WRK_BODY holds, or WRK_BODY_BYTES bytes, and end its report with one line for programs:
-- figures ANSWERS_PER_SECOND MEDIAN_MICROSECONDS ANSWERS FAILED_CALLS P99_MICROSECONDS
local body, bytes = os.getenv("WRK_BODY"), tonumber(os.getenv("WRK_BODY_BYTES") or "0")
if bytes > 0 then
  body = string.rep("x", bytes)
end
if body and body ~= "" then
  wrk.method, wrk.body = "POST", body
end

function done(summary, latency)
  local errors, failed = summary.errors, 0
  for _, kind in ipairs({ "connect", "read", "write", "status", "timeout" }) do
    failed = failed + errors[kind]
  end
  print(string.format("figures %.0f %d %d %d %d", summary.requests / summary.duration * 1e6, latency:percentile(50),
    summary.requests, failed, latency:percentile(99)))
end
