package redisstore

import (
	"crypto/tls"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/redis/rueidis"
)

func TestParseURL(t *testing.T) {
	t.Parallel()
	for url, want := range map[string]rueidis.ClientOption{
		"redis://localhost":             {InitAddress: []string{"localhost:6379"}, ForceSingleClient: true},
		"redis://localhost/":            {InitAddress: []string{"localhost:6379"}, ForceSingleClient: true},
		"redis://h:1/3":                 {InitAddress: []string{"h:1"}, SelectDB: 3, ForceSingleClient: true},
		"redis://h?db=3&client_name=me": {InitAddress: []string{"h:6379"}, SelectDB: 3, ClientName: "me", ForceSingleClient: true},
		"redis://[::1]:7000":            {InitAddress: []string{"[::1]:7000"}, ForceSingleClient: true},
		"redis://[::1]":                 {InitAddress: []string{"[::1]:6379"}, ForceSingleClient: true},
		"redis://:p%40ss%2Fw%3Ard@h":    {InitAddress: []string{"h:6379"}, Password: "p@ss/w:rd", ForceSingleClient: true},
		"redis://u%3A:a:b@c@h":          {InitAddress: []string{"h:6379"}, Username: "u:", Password: "a:b@c", ForceSingleClient: true},
		"redis+cluster://u:p@a,b:7,[::2]": {
			InitAddress: []string{"a:6379", "b:7", "[::2]:6379"}, Username: "u", Password: "p"},
		"redis+sentinel://:p@a,b:7/main/2?sentinel_user=su&sentinel_password=sp": {
			InitAddress: []string{"a:26379", "b:7"}, Password: "p", SelectDB: 2,
			Sentinel: rueidis.SentinelOption{MasterSet: "main", Username: "su", Password: "sp"}},
		"redis+sentinel://a/?master=my+master": {
			InitAddress: []string{"a:26379"}, Sentinel: rueidis.SentinelOption{MasterSet: "my master"}},
	} {
		got, err := ParseURL(url)
		if err != nil {
			t.Errorf("%s: %v", url, err)
			continue
		}
		if !slices.Equal(got.InitAddress, want.InitAddress) || got.Username != want.Username || got.Password != want.Password ||
			got.SelectDB != want.SelectDB || got.ClientName != want.ClientName || got.ForceSingleClient != want.ForceSingleClient ||
			got.Sentinel.MasterSet != want.Sentinel.MasterSet || got.Sentinel.Username != want.Sentinel.Username ||
			got.Sentinel.Password != want.Sentinel.Password || got.TLSConfig != nil {
			t.Errorf("%s: got %+v", url, got)
		}
	}
}

func TestParseURLWithTLS(t *testing.T) {
	t.Parallel()
	for url, check := range map[string]func(*tls.Config) bool{
		"rediss://h":                                 func(c *tls.Config) bool { return c.MinVersion == tls.VersionTLS12 && !c.InsecureSkipVerify },
		"rediss://h?server_name=x":                   func(c *tls.Config) bool { return c.ServerName == "x" },
		"rediss+cluster://h,i?skip_verify=true":      func(c *tls.Config) bool { return c.InsecureSkipVerify && c.ServerName == "" },
		"rediss+sentinel://h/main?skip_verify=false": func(c *tls.Config) bool { return !c.InsecureSkipVerify },
	} {
		got, err := ParseURL(url)
		if err != nil || got.TLSConfig == nil || !check(got.TLSConfig) {
			t.Errorf("%s: %+v, %v", url, got.TLSConfig, err)
		}
		if got.Sentinel.MasterSet != "" && got.Sentinel.TLSConfig == nil {
			t.Errorf("%s: the sentinels are asked without TLS", url)
		}
	}
}

func TestParseURLErrors(t *testing.T) {
	t.Parallel()
	garbage := filepath.Join(t.TempDir(), "garbage.pem")
	if err := os.WriteFile(garbage, []byte("no certificate"), 0o600); err != nil {
		t.Fatal(err)
	}
	for url, want := range map[string]string{
		"":                                     "must begin with redis://",
		"localhost:6379":                       "must begin with redis://",
		"http://h":                             "must begin with redis://",
		"redis:///0":                           "the host is missing",
		"redis://h:0":                          `port "0"`,
		"redis://h:65536":                      `port "65536"`,
		"redis://h:x":                          `port "x"`,
		"redis://a:1:2":                        "IPv6 addresses in brackets",
		"redis://a,b":                          "several hosts",
		"redis+cluster://a,,b":                 "the host is missing",
		"redis+cluster://a,a":                  "given twice",
		"redis+cluster://a/1":                  "a cluster has database 0 only",
		"redis+sentinel://a":                   "the name of the master is missing",
		"redis+sentinel://a/m/1/2":             "more in it than the database",
		"redis://h/x":                          `database "x"`,
		"redis://h/-1":                         `database "-1"`,
		"redis://h/1?db=1":                     "more in it than the database",
		"redis://h?bd=1":                       `unknown parameter "bd"`,
		"redis://h?db=1&db=2":                  "given 2 times",
		"redis://h?master=m":                   "belongs to redis+sentinel://",
		"redis://h?ca=x":                       "needs TLS: use rediss://",
		"redis+cluster://h?skip_verify=true":   "use rediss+cluster://",
		"rediss://h?skip_verify=maybe":         `skip_verify "maybe"`,
		"rediss://h?ca=/no/such/file":          "/no/such/file",
		"rediss://h?ca=" + garbage:             "no certificate in",
		"rediss://h?cert=" + garbage:           "must be given together",
		"redis://h#x":                          "must not have a # part",
		"redis://user@h":                       "a user without a password",
		"redis://:quuxcorge%zz@h":              "written",
		"redis://u:quux/corge@h":               "write / ? # @ :",
		"redis://u:quux?corge@h":               "write / ? # @ :",
		"redis://u:quux#corge@h":               "write / ? # @ :",
		"redis://u:a@quux/corge@h":             "write / ? # @ :",
		"redis://u:quuxcorge@h:port":           `port "port"`,
		"redis://u:quuxcorge@a,b":              "several hosts",
		"redis+sentinel://u:quuxcorge@h/m/x?q": "unknown parameter",
	} {
		_, err := ParseURL(url)
		if want == "written" {
			want = "hexadecimal digits"
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %v, want %q in it", url, err, want)
		} else if strings.Contains(err.Error(), "quux") || strings.Contains(err.Error(), "corge") {
			t.Errorf("%q: the error contains the password: %v", url, err)
		}
	}
}

func TestOpenReportsEverythingWrong(t *testing.T) {
	t.Parallel()
	_, err := Open(t.Context(), Config{URL: "redis://h:x", Prefix: "a b", Timeout: -1, TagLife: 1})
	for _, want := range []string{`port "x"`, `Prefix "a b"`, "Timeout is negative", "TagLife is 1ns"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q in it", err, want)
		}
	}
	for _, cfg := range []Config{{}, {URL: "redis://h", Client: &rueidis.ClientOption{InitAddress: []string{"h:1"}}}, {Client: &rueidis.ClientOption{}}} {
		if _, err := Open(t.Context(), cfg); err == nil {
			t.Errorf("Open took %+v", cfg)
		}
	}
}

func FuzzParseURL(f *testing.F) {
	for _, s := range []string{
		"redis://u:p@h:1/2?db=3", "redis+cluster://a,b:1,[::1]", "redis+sentinel://a/m?sentinel_password=x", "rediss://h?ca=/x&skip_verify=1", "redis://@/#?",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		opt, err := ParseURL(s)
		if err == nil && (len(opt.InitAddress) == 0 || opt.SelectDB < 0) {
			t.Errorf("%q parsed to %+v", s, opt)
		}
		// No error contains the password, however it is written and whatever follows it.
		const secret = "s3cr3tS3CR3T"
		for _, password := range []string{secret, secret + "/", "?" + secret, "#" + secret, "@" + secret, secret + "%", "a@b/" + secret, secret + "@:/"} {
			if _, err := ParseURL("redis://u:" + password + "@" + s); err != nil && strings.Contains(err.Error(), secret) {
				t.Errorf("password %q before %q: the error contains it: %v", password, s, err)
			}
		}
	})
}
