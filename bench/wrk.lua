-- Lets wrk post what WRK_BODY holds, and end its report with one line for programs:
-- figures ANSWERS_PER_SECOND MEDIAN_MICROSECONDS ANSWERS FAILED_CALLS
local body = os.getenv("WRK_BODY")
if body and body ~= "" then
  wrk.method, wrk.body = "POST", body
end

function done(summary, latency)
  local errors, failed = summary.errors, 0
  for _, kind in ipairs({ "connect", "read", "write", "status", "timeout" }) do
    failed = failed + errors[kind]
  end
  print(string.format("figures %.0f %d %d %d", summary.requests / summary.duration * 1e6, latency:percentile(50),
    summary.requests, failed))
end
