package redisstore

import (
	"crypto/sha1"
	"encoding/hex"
	"strings"
)

// script is Lua that the server runs. EVALSHA names it by digest.
type script struct{ source, digest string }

func newScript(parts ...string) *script {
	source := strings.Join(parts, "")
	sum := sha1.Sum([]byte(source))
	return &script{source: source, digest: hex.EncodeToString(sum[:])}
}

// Everything here runs from Redis 6.2 on: no GT option, no script flags. The scripts write
// random bytes from the client and times that they read. So replicas must receive the effects
// of a script rather than run it again; that is the default since Redis 5.

// luaClock is the server's clock in ms. get reads a value of another type as no value, and its
// callers treat one of another shape so too: both are replaced as a missing one is. Any other
// error ends the script: where the account may not GET, marks and leases would be lost.
const luaClock = `
local function now()
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end
local function get(key)
  local v = redis.pcall('GET', key)
  if type(v) == 'string' then return v end
  if type(v) == 'table' and not string.find(v.err, 'WRONGTYPE', 1, true) then error(v.err) end
  return ''
end
`

const luaTag = luaClock + `
-- marks of the tag's value v that live at t, but for the one named gone; nil if v is no
-- value of a tag
local function marks(v, gone, t)
  if #v < 16 or (#v - 16) % 24 ~= 0 then return nil end
  local kept = {}
  for i = 17, #v, 24 do
    if string.sub(v, i, i + 15) ~= gone and struct.unpack('>I8', v, i + 16) > t then
      kept[#kept + 1] = string.sub(v, i, i + 23)
    end
  end
  return table.concat(kept)
end
`

var (
	// readTagScript returns the value of a tag without the marks that have expired. A tag
	// that has no value gets the version in ARGV[1], for ARGV[2] ms.
	readTagScript = newScript(luaTag, `
local v = get(KEYS[1])
local m = marks(v, '', now())
if not m then
  redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
  return ARGV[1]
end
local rest = string.sub(v, 1, 16) .. m
if #rest < #v then redis.call('SET', KEYS[1], rest, 'KEEPTTL') end
return rest
`)

	// setVersionScript gives the tag in KEYS[i] the version in ARGV[3 + i] for at least ARGV[1]
	// ms. It sets the mark ARGV[2] for ARGV[3] ms or, if that is 0, removes it. It never
	// shortens the life of the key: a longer one protects an entry.
	setVersionScript = newScript(luaTag, `
local t = now()
local life = tonumber(ARGV[1])
local lease = tonumber(ARGV[3])
local mark = ''
if lease > 0 then mark = ARGV[2] .. struct.pack('>I8', t + lease) end
for i, key in ipairs(KEYS) do
  local v = ARGV[3 + i] .. (marks(get(key), ARGV[2], t) or '') .. mark
  local left = math.max(redis.call('PTTL', key), life, lease)
  redis.call('SET', key, v, 'PX', string.format('%.0f', left))
end
`)

	// extendScript extends the life of those of KEYS that exist to ARGV[1] ms, unless seven
	// eighths of that are left. So not every entry of a busy tag costs a write that replicas
	// receive.
	extendScript = newScript(`
for _, key in ipairs(KEYS) do
  local left = redis.call('PTTL', key)
  if left ~= -2 and left < ARGV[1] * 7 / 8 then redis.call('PEXPIRE', key, ARGV[1]) end
end
`)
)

// luaLease reads and writes the lease of a key: a byte for the format, token and guard of the
// load, when its lease ends, whether another load was refused it, when a failure may be retried,
// when it is forgotten, and what was remembered of it. A part that has ended reads as absent. The
// guard is also that of the failure while claims are held off: each claim that is granted ends
// that.
const luaLease = luaClock + `
local function open(key, t)
  local l = {token = '', guard = '', ends = 0, awaited = '0', retry = 0, forget = 0, failure = ''}
  local v = get(key)
  if #v < 58 or string.sub(v, 1, 1) ~= '1' then return l end
  l.token, l.guard, l.ends, l.awaited, l.retry, l.forget = struct.unpack('>c16c16I8c1I8I8', v, 2)
  l.failure = string.sub(v, 59)
  if l.ends <= t then l.token, l.ends = '', 0 end
  if l.forget <= t then l.retry, l.forget, l.failure = 0, 0, '' end
  return l
end
local function save(key, l, t)
  local left = math.max(l.ends, l.forget) - t
  if left <= 0 then
    redis.call('DEL', key)
    return
  end
  local none = string.rep('\0', 16)
  redis.call('SET', key, '1' .. struct.pack('>c16c16I8c1I8I8',
    l.token ~= '' and l.token or none, l.guard ~= '' and l.guard or none,
    l.ends, l.awaited, l.retry, l.forget) .. l.failure, 'PX', string.format('%.0f', left))
end
`

var (
	// claimScript asks for the lease for the load ARGV[1] under the guard ARGV[2], for
	// ARGV[3] ms. It returns a driver.ClaimState, the ms to wait, and the failure or false.
	// A claim under the token that holds the lease repeats one whose answer was lost.
	claimScript = newScript(luaLease, `
local t = now()
local l = open(KEYS[1], t)
if l.retry > t and l.guard == ARGV[2] then return {3, l.retry - t, l.failure} end
if l.ends > t and l.guard == ARGV[2] and l.token ~= ARGV[1] then
  if l.awaited ~= '1' then
    l.awaited = '1'
    save(KEYS[1], l, t)
  end
  return {2, l.ends - t, false}
end
l.token, l.guard, l.ends, l.retry = ARGV[1], ARGV[2], t + tonumber(ARGV[3]), 0
save(KEYS[1], l, t)
return {1, 0, l.forget > 0 and l.failure}
`)

	// renewScript extends the lease of ARGV[1] to ARGV[2] ms from now and returns 1. It returns
	// 0 if ARGV[1] does not hold the lease.
	renewScript = newScript(luaLease, `
local t = now()
local l = open(KEYS[1], t)
if l.ends <= t or l.token ~= ARGV[1] then return 0 end
l.ends = t + tonumber(ARGV[2])
save(KEYS[1], l, t)
return 1
`)

	// settleScript ends the load ARGV[1] with the outcome ARGV[2]: "filled", "failed" with
	// the failure ARGV[3] for ARGV[4] ms, or neither. It announces the key ARGV[6] on the
	// channel ARGV[5] if another load was refused the lease, and also if this load no longer
	// had it: a load that was refused earlier may still wait for this one. It settles even if
	// the account may not publish.
	settleScript = newScript(luaLease, `
local t = now()
local l = open(KEYS[1], t)
local mine = l.ends > t and l.token == ARGV[1]
local awaited = l.awaited == '1'
if mine then
  l.token, l.ends, l.awaited = '', 0, '0'
  if ARGV[2] == 'filled' then
    l.retry, l.forget, l.failure = 0, 0, ''
  elseif ARGV[2] == 'failed' then
    l.retry, l.forget, l.failure = t + tonumber(ARGV[4]), t + 2 * tonumber(ARGV[4]), ARGV[3]
  end
  save(KEYS[1], l, t)
end
if awaited or not mine then redis.pcall('PUBLISH', ARGV[5], ARGV[6]) end
`)
)
