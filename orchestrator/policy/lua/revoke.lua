#!lua flags=allow-oom
-- A key ends now, also where the store is full. KEYS 1 key of the API
if redis.call('HEXISTS', KEYS[1], 'revoked') == 0 then redis.call('HSET', KEYS[1], 'revoked', redis.call('TIME')[1]) end
