package cache_test

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/chainlearn/chainlearn/cache"
)

type topicPage struct {
	Topic string
	From  int
}

// rude has methods of its own that panic.
type rude struct{ N int }

func (rude) MarshalJSON() ([]byte, error) { panic("no") }
func (*rude) UnmarshalJSON([]byte) error  { panic("no") }

func TestQueriesByName(t *testing.T) {
	virtual(t, func(t *testing.T) {
		s, c := newSource(), newCache(t)
		query := s.query()
		query.StaleWhileRevalidate, query.NearStrict = time.Minute, true
		rows := cache.Define(c.Cache, query)
		cache.Define(c.Cache, cache.Query[topicPage, string]{
			Name: "rows:page", FreshFor: time.Minute, Owner: func(p topicPage) string { return p.Topic },
			Tags: func(p topicPage) []cache.Tag { return cache.Tags("topic", p.Topic) },
			Load: func(context.Context, topicPage) (string, error) { return "rows", nil },
		})
		cache.Define(c.Cache, cache.Query[rude, string]{
			Name: "rows:rude", FreshFor: time.Minute, Key: func(rude) string { return "" },
			Tags: func(rude) []cache.Tag { return cache.Tags("row", "1") },
			Load: func(context.Context, rude) (string, error) { return "", nil },
		})
		infos := c.Queries()
		if len(infos) != 3 || string(infos[2].Params) != "null" || infos[0].Name != "rows:one" || string(infos[0].Params) != "0" || !infos[0].NearStrict || infos[0].StaleWhileRevalidate != time.Minute || infos[0].Owned ||
			infos[1].Name != "rows:page" || string(infos[1].Params) != `{"Topic":"","From":0}` || !infos[1].Owned || infos[1].FreshFor != time.Minute {
			t.Errorf("the queries are %+v", infos)
		}

		mustGet(t, rows, 1, "one")
		synctest.Wait()
		in, err := c.Inspect(t.Context(), "rows:one", []byte("1"))
		if err != nil || in.Key != "rows:one:1" || !in.Valid {
			t.Errorf("%+v, %v", in, err)
		}
		in, err = c.Inspect(t.Context(), "rows:page", []byte(`{"Topic": "go"}`))
		if err != nil || !strings.Contains(in.Key, "go") || in.Stored || in.Tags[0] != "topic:go" {
			t.Errorf("%+v, %v", in, err)
		}
		wantLoads(t, s, 1)

		for _, wrong := range []struct{ query, params, says string }{
			{"rows:two", "1", `there is no query "rows:two": there are rows:one, rows:page, rows:rude`},
			{"rows:rude", `{}`, "UnmarshalJSON panicked"},
			{"rows:one", `"x"`, `parameters "x" of query "rows:one"`},
			{"rows:page", `{"topic": "go", "until": 3}`, `unknown field "until"`},
			{"rows:page", `{"until": 3}`, `they look like {"Topic":"","From":0}`},
			{"rows:one", "1 2", "there is more"},
			{"rows:page", "", "owner"}, // what a Get of the zero value says
		} {
			if _, err := c.Inspect(t.Context(), wrong.query, []byte(wrong.params)); err == nil || !strings.Contains(err.Error(), wrong.says) {
				t.Errorf("%s %s: error %v, want one with %q", wrong.query, wrong.params, err, wrong.says)
			}
		}
	})
}
