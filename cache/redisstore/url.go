package redisstore

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/redis/rueidis"
)

// ParseURL reads where Redis is:
//
//	redis://[user:password@]host[:6379][/db]
//	redis+cluster://[user:password@]host[:6379][,host…]
//	redis+sentinel://[user:password@]host[:26379][,host…]/master[/db]
//
// and the same with rediss for TLS. User and password are percent-encoded; a password
// alone (":secret@") belongs to the default user. Parameters:
//
//	db                      number of the database, instead of the path
//	master                  name of the master that Sentinel watches, instead of the path
//	sentinel_user, sentinel_password   for the sentinels, which share nothing with the master
//	client_name             shown by CLIENT LIST
//	ca, cert, key           PEM files: authorities to trust instead of the system's, and our certificate
//	server_name             to expect in the certificate, instead of the host
//	skip_verify=true        take any certificate
//
// An error names the part that is wrong and never contains a password.
func ParseURL(s string) (rueidis.ClientOption, error) {
	var none rueidis.ClientOption
	u, err := splitURL(s)
	if err != nil {
		return none, err
	}
	opt := rueidis.ClientOption{
		Username:   u.user,
		Password:   u.password,
		ClientName: u.query.Get("client_name"),
	}
	if opt.InitAddress, err = u.addresses(); err != nil {
		return none, err
	}
	if err := u.database(&opt); err != nil {
		return none, err
	}
	if opt.TLSConfig, err = u.tls(); err != nil {
		return none, err
	}
	switch u.mode {
	case single:
		opt.ForceSingleClient = true
	case sentinel:
		opt.Sentinel.Username = u.query.Get("sentinel_user")
		opt.Sentinel.Password = u.query.Get("sentinel_password")
		opt.Sentinel.TLSConfig = opt.TLSConfig
	}
	return opt, nil
}

type mode int

const (
	single mode = iota
	cluster
	sentinel
)

var schemes = map[string]struct {
	mode mode
	tls  bool
}{
	"redis":           {single, false},
	"rediss":          {single, true},
	"redis+cluster":   {cluster, false},
	"rediss+cluster":  {cluster, true},
	"redis+sentinel":  {sentinel, false},
	"rediss+sentinel": {sentinel, true},
}

// parameters are those that a URL may have, with the mode that they need or -1.
var parameters = map[string]mode{
	"db": -1, "client_name": -1,
	"ca": -1, "cert": -1, "key": -1, "server_name": -1, "skip_verify": -1,
	"master": sentinel, "sentinel_user": sentinel, "sentinel_password": sentinel,
}

type redisURL struct {
	scheme         string
	mode           mode
	encrypted      bool
	user, password string
	hosts          []string
	path           []string
	query          url.Values
}

// splitURL does not use net/url.Parse, which allows only one host, and whose errors repeat the
// whole URL with the password in it.
func splitURL(s string) (redisURL, error) {
	var u redisURL
	scheme, rest, found := strings.Cut(s, "://")
	kind, known := schemes[scheme]
	if !found || !known {
		return u, errors.New("redis URL: it must begin with redis://, rediss://, redis+cluster://, rediss+cluster://, redis+sentinel:// or rediss+sentinel://")
	}
	u.scheme, u.mode, u.encrypted = scheme, kind.mode, kind.tls

	authority, tail := rest, ""
	if i := strings.IndexAny(rest, "/?#"); i >= 0 {
		authority, tail = rest[:i], rest[i:]
	}
	if strings.Contains(tail, "@") {
		// What looks like the host may be half of a password, so the error repeats nothing.
		return u, errors.New("redis URL: an @ behind the host: write / ? # @ : in user, password and parameters as %2F %3F %23 %40 %3A")
	}
	if i := strings.LastIndexByte(authority, '@'); i >= 0 {
		user, password, _ := strings.Cut(authority[:i], ":")
		var err1, err2 error
		u.user, err1 = url.PathUnescape(user)
		u.password, err2 = url.PathUnescape(password)
		if err1 != nil || err2 != nil {
			return u, errors.New("redis URL: user or password: a % must be followed by two hexadecimal digits; write % itself as %25")
		}
		if u.user != "" && u.password == "" {
			return u, errors.New("redis URL: a user without a password: write user:password@, or :password@ for the default user")
		}
		authority = authority[i+1:]
	}
	u.hosts = strings.Split(authority, ",")

	path, query, _ := strings.Cut(tail, "?")
	if strings.Contains(query, "#") || strings.Contains(path, "#") {
		return u, errors.New("redis URL: it must not have a # part")
	}
	for part := range strings.SplitSeq(strings.Trim(path, "/"), "/") {
		part, err := url.PathUnescape(part)
		if err != nil {
			return u, errors.New("redis URL: path: a % must be followed by two hexadecimal digits")
		}
		if part != "" {
			u.path = append(u.path, part)
		}
	}
	var err error
	if u.query, err = url.ParseQuery(query); err != nil {
		return u, errors.New("redis URL: parameters: they must read name=value&name=value, percent-encoded")
	}
	for name, values := range u.query {
		needs, known := parameters[name]
		switch {
		case !known:
			return u, fmt.Errorf("redis URL: unknown parameter %q", name)
		case needs >= 0 && needs != u.mode:
			return u, fmt.Errorf("redis URL: parameter %q belongs to redis+sentinel://", name)
		case len(values) > 1:
			return u, fmt.Errorf("redis URL: parameter %q given %d times", name, len(values))
		}
	}
	return u, nil
}

func (u redisURL) addresses() ([]string, error) {
	port := "6379"
	if u.mode == sentinel {
		port = "26379"
	}
	if len(u.hosts) > 1 && u.mode == single {
		return nil, errors.New("redis URL: several hosts: use redis+cluster:// or redis+sentinel://")
	}
	addrs := make([]string, 0, len(u.hosts))
	for _, host := range u.hosts {
		addr, err := address(host, port)
		if err != nil {
			return nil, err
		}
		if slices.Contains(addrs, addr) {
			return nil, fmt.Errorf("redis URL: host %q given twice", host)
		}
		addrs = append(addrs, addr)
	}
	return addrs, nil
}

func address(s, defaultPort string) (string, error) {
	host, port := s, defaultPort
	switch {
	case strings.HasPrefix(s, "[") && strings.HasSuffix(s, "]"):
		host = s[1 : len(s)-1]
	case strings.Contains(s, ":"):
		var err error
		if host, port, err = net.SplitHostPort(s); err != nil {
			return "", fmt.Errorf("redis URL: host %q: write host:port, and IPv6 addresses in brackets", s)
		}
	}
	if host == "" {
		return "", errors.New("redis URL: the host is missing")
	}
	if strings.ContainsAny(host, " \t\r\n@%") {
		return "", fmt.Errorf("redis URL: host %q: not a host name or address", host)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return "", fmt.Errorf("redis URL: port %q: must be between 1 and 65535", port)
	}
	return net.JoinHostPort(host, port), nil
}

// database sets the number of the database and the name of the master, which may come
// from the path or from parameters.
func (u redisURL) database(opt *rueidis.ClientOption) error {
	path := u.path
	if u.mode == sentinel {
		opt.Sentinel.MasterSet = u.query.Get("master")
		if opt.Sentinel.MasterSet == "" {
			if len(path) == 0 {
				return errors.New("redis URL: the name of the master is missing: redis+sentinel://host/NAME")
			}
			opt.Sentinel.MasterSet, path = path[0], path[1:]
		}
	}
	db := u.query.Get("db")
	switch {
	case len(path) > 1 || (len(path) == 1 && db != ""):
		return errors.New("redis URL: path: more in it than the database")
	case len(path) == 1:
		db = path[0]
	case db == "":
		return nil
	}
	n, err := strconv.ParseUint(db, 10, 16)
	if err != nil {
		return fmt.Errorf("redis URL: database %q: must be a number from 0", db)
	}
	if n != 0 && u.mode == cluster {
		return fmt.Errorf("redis URL: database %d: a cluster has database 0 only", n)
	}
	opt.SelectDB = int(n)
	return nil
}

func (u redisURL) tls() (*tls.Config, error) {
	if !u.encrypted {
		for _, name := range []string{"ca", "cert", "key", "server_name", "skip_verify"} {
			if u.query.Has(name) {
				return nil, fmt.Errorf("redis URL: parameter %q needs TLS: use %s://", name, strings.Replace(u.scheme, "redis", "rediss", 1))
			}
		}
		return nil, nil
	}
	cfg := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: u.query.Get("server_name")}
	if s := u.query.Get("skip_verify"); s != "" {
		skip, err := strconv.ParseBool(s)
		if err != nil {
			return nil, fmt.Errorf("redis URL: skip_verify %q: must be true or false", s)
		}
		cfg.InsecureSkipVerify = skip
	}
	if file := u.query.Get("ca"); file != "" {
		pem, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("redis URL: ca: %w", err)
		}
		cfg.RootCAs = x509.NewCertPool()
		if !cfg.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("redis URL: ca: no certificate in %s", file)
		}
	}
	cert, key := u.query.Get("cert"), u.query.Get("key")
	if (cert == "") != (key == "") {
		return nil, errors.New("redis URL: cert and key must be given together")
	}
	if cert != "" {
		pair, err := tls.LoadX509KeyPair(cert, key)
		if err != nil {
			return nil, fmt.Errorf("redis URL: cert and key: %w", err)
		}
		cfg.Certificates = []tls.Certificate{pair}
	}
	return cfg, nil
}
