package testservers_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"github.com/chainlearn/chainlearn/internal/proof/testservers"
)

// ping asks once and gives the server a short while, which is the whole while a
// frozen one costs here.
func ping(t *testing.T, r *testservers.Redis) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	return r.Do(ctx, "PING").Error()
}

func set(t *testing.T, r *testservers.Redis, key, value string) {
	t.Helper()
	testservers.Must(t, r.Do(t.Context(), "SET", key, value).Error())
}

// get returns "" for a key that is not there.
func get(t *testing.T, r *testservers.Redis, key string) string {
	t.Helper()
	v, err := r.Do(t.Context(), "GET", key).ToString()
	if err != nil && !rueidis.IsRedisNil(err) {
		t.Fatal(err)
	}
	return v
}

func TestRedisFreezesAndThaws(t *testing.T) {
	t.Parallel()
	r := testservers.StartRedis(t, testservers.RedisConfig{})
	testservers.Must(t, ping(t, r))

	testservers.Must(t, r.Freeze())
	if err := ping(t, r); err == nil {
		t.Error("a frozen server answered PING")
	}
	testservers.Must(t, r.Thaw())
	testservers.Must(t, r.Do(t.Context(), "PING").Error())
}

func TestRedisIsGoneAfterKill(t *testing.T) {
	t.Parallel()
	r := testservers.StartRedis(t, testservers.RedisConfig{})
	testservers.Must(t, r.Kill())
	if err := ping(t, r); err == nil {
		t.Error("a killed server answered PING")
	}
	if err := r.Freeze(); err == nil {
		t.Error("a killed server could be frozen")
	}
}

func TestRedisRestart(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name    string
		config  testservers.RedisConfig
		restart func(context.Context, *testservers.Redis) error
		want    string
	}{
		{"running", testservers.RedisConfig{}, func(ctx context.Context, r *testservers.Redis) error {
			return r.Restart(ctx)
		}, "new"},
		{"killed", testservers.RedisConfig{}, func(ctx context.Context, r *testservers.Redis) error {
			if err := r.Kill(); err != nil {
				return err
			}
			return r.Restart(ctx)
		}, "saved"},
		{"killed, append-only", testservers.RedisConfig{AppendOnly: true}, func(ctx context.Context, r *testservers.Redis) error {
			if err := r.Kill(); err != nil {
				return err
			}
			return r.Restart(ctx)
		}, "new"},
		{"stopped", testservers.RedisConfig{}, func(ctx context.Context, r *testservers.Redis) error {
			if err := r.Stop(ctx); err != nil {
				return err
			}
			return r.Restart(ctx)
		}, "saved"},
		{"empty", testservers.RedisConfig{AppendOnly: true}, func(ctx context.Context, r *testservers.Redis) error {
			return r.RestartEmpty(ctx)
		}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := testservers.StartRedis(t, tt.config)
			set(t, r, "k", "saved")
			testservers.Must(t, r.Do(t.Context(), "SAVE").Error())
			set(t, r, "k", "new")
			addr := r.Addr()

			testservers.Must(t, tt.restart(t.Context(), r))
			if got := get(t, r, "k"); got != tt.want {
				t.Errorf("after the restart the key holds %q, want %q", got, tt.want)
			}
			if r.Addr() != addr {
				t.Errorf("the server moved from %s to %s", addr, r.Addr())
			}
		})
	}
}

func TestRedisURLIsAllAClientNeeds(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		config testservers.RedisConfig
	}{
		{"plain", testservers.RedisConfig{}},
		{"password", testservers.RedisConfig{Password: "s3cret/with:signs"}},
		{"TLS", testservers.RedisConfig{TLS: true, Password: "secret"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := testservers.StartRedis(t, tt.config)
			option, err := rueidis.ParseURL(r.URL())
			testservers.Must(t, err)
			option.TLSConfig = r.TLSConfig()
			option.ForceSingleClient = true
			client, err := rueidis.NewClient(option)
			testservers.Must(t, err)
			defer client.Close()
			testservers.Must(t, client.Do(t.Context(), client.B().Ping().Build()).Error())
		})
	}
}

func TestRedisObeysItsConfiguration(t *testing.T) {
	t.Parallel()
	r := testservers.StartRedis(t, testservers.RedisConfig{Config: []string{"user default off", "maxmemory 8mb"}})
	option, err := rueidis.ParseURL(r.URL())
	testservers.Must(t, err)
	if client, err := rueidis.NewClient(option); err == nil {
		client.Close()
		t.Error("the default user was let in though it is switched off")
	}
	got, err := r.Do(t.Context(), "CONFIG", "GET", "maxmemory").AsStrMap() // the harness is let in
	if err != nil || got["maxmemory"] != "8388608" {
		t.Errorf("maxmemory is %q (%v), want 8388608", got["maxmemory"], err)
	}
}

func TestRedisReportsWhyItDidNotStart(t *testing.T) {
	t.Parallel()
	testservers.StartRedis(t, testservers.RedisConfig{}) // skips where there is none
	_, err := testservers.OpenRedis(t.Context(), testservers.RedisConfig{Config: []string{"no-such-directive yes"}})
	if err == nil || !strings.Contains(err.Error(), "no-such-directive") {
		t.Errorf("got error %v, want one that shows the line Redis refused", err)
	}
}
