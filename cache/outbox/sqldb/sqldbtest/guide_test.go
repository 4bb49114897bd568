package sqldbtest

import (
	"context"
	"testing"
	"time"

	"gorm.io/driver/postgres"
	"gorm.io/gorm"

	"github.com/chainlearn/chainlearn/cache"
	"github.com/chainlearn/chainlearn/cache/memstore"
	"github.com/chainlearn/chainlearn/cache/outbox/sqldb"
	"github.com/chainlearn/chainlearn/internal/proof/testservers"
)

type Product struct {
	ID    int
	Title string
}

// The guide of the package documentation, as a program.
func TestGuide(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	dsn := database(t, `CREATE TABLE products (id int PRIMARY KEY, title text NOT NULL)`, `INSERT INTO products VALUES (7, 'old')`)
	testservers.Must(t, sqldb.Watch(ctx, plain(t, dsn), "shop", "products", "product:{id}"))
	store := memstore.New(memstore.Config{})
	defer store.Close()

	c, err := cache.New(cache.Config{Store: store})
	testservers.Must(t, err)
	defer c.Close()
	db, err := sqldb.Open("pgx", dsn, c, sqldb.Config{})
	testservers.Must(t, err)
	defer db.Close()
	g, err := gorm.Open(postgres.New(postgres.Config{Conn: db.DB}), &gorm.Config{})
	testservers.Must(t, err)
	product := cache.Define(c, cache.Query[int, Product]{
		Name: "products:page", FreshFor: time.Hour,
		Tags: func(id int) []cache.Tag { return cache.Tags("product", id) },
		Load: func(ctx context.Context, id int) (p Product, err error) {
			err = g.WithContext(ctx).First(&p, id).Error
			return p, err
		},
	})

	testservers.Must(t, c.WaitServing(ctx))
	p, err := product.Get(ctx, 7)
	testservers.Must(t, err)
	for _, title := range []string{"new", "newer"} {
		p.Title = title
		testservers.Must(t, g.Save(&p).Error)
		if got, err := product.Get(ctx, 7); err != nil || got.Title != title {
			t.Errorf("after Save of %q the answer is %q, %v", title, got.Title, err)
		}
	}
}
