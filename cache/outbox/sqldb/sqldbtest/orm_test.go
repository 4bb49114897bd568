package sqldbtest

import (
	"context"
	"errors"
	"testing"

	"github.com/jmoiron/sqlx"
	"github.com/uptrace/bun"
	"github.com/uptrace/bun/dialect/pgdialect"
	"gorm.io/driver/postgres"
	"gorm.io/gorm"
	"gorm.io/gorm/logger"

	"github.com/chainlearn/chainlearn/internal/proof/testservers"
)

// Item is a row of items, as GORM, bun and sqlx have it.
type Item struct {
	bun.BaseModel `bun:"table:items" gorm:"-"`

	ID    int `bun:",pk"`
	Value int
}

type writer func(ctx context.Context, value int) error

// gormWays are ways of GORM to set item 1 to a value, on any database.
func gormWays(g *gorm.DB) map[string]writer {
	undone := errors.New("undone")
	prepared := g.Session(&gorm.Session{PrepareStmt: true})
	alone := g.Session(&gorm.Session{SkipDefaultTransaction: true})
	return map[string]writer{
		"Save": func(ctx context.Context, v int) error { return g.WithContext(ctx).Save(&Item{ID: 1, Value: v}).Error },
		"Update": func(ctx context.Context, v int) error {
			return g.WithContext(ctx).Model(&Item{ID: 1}).Update("value", v).Error
		},
		"without a transaction": func(ctx context.Context, v int) error {
			return alone.WithContext(ctx).Model(&Item{ID: 1}).Update("value", v).Error
		},
		"prepared": func(ctx context.Context, v int) error {
			return prepared.WithContext(ctx).Model(&Item{ID: 1}).Update("value", v).Error
		},
		"Delete and Create": func(ctx context.Context, v int) error {
			return errors.Join(g.WithContext(ctx).Delete(&Item{ID: 1}).Error, g.WithContext(ctx).Create(&Item{ID: 1, Value: v}).Error)
		},
		"Transaction with one in it that is undone": func(ctx context.Context, v int) error {
			return g.WithContext(ctx).Transaction(func(tx *gorm.DB) error {
				err := tx.Transaction(func(inner *gorm.DB) error {
					return errors.Join(inner.Save(&Item{ID: 1, Value: -5}).Error, undone)
				})
				if !errors.Is(err, undone) {
					return err
				}
				return tx.Save(&Item{ID: 1, Value: v}).Error
			})
		},
		"Exec": func(ctx context.Context, v int) error {
			return g.WithContext(ctx).Exec(`UPDATE items SET value = ? WHERE id = 1`, v).Error
		},
	}
}

// Programs that are built on database/sql are exact as they are.
func TestWhatIsBuiltOnDatabaseSQL(t *testing.T) {
	for name, open := range map[string]func(t *testing.T, p *process) map[string]writer{
		"GORM": func(t *testing.T, p *process) map[string]writer {
			g, err := gorm.Open(postgres.New(postgres.Config{Conn: p.db.DB}), &gorm.Config{Logger: logger.Discard})
			testservers.Must(t, err)
			ways := gormWays(g)
			ways["Raw"] = func(ctx context.Context, v int) error {
				var item Item
				return g.WithContext(ctx).Raw(`UPDATE items SET value = ? WHERE id = 1 RETURNING *`, v).Scan(&item).Error
			}
			return ways
		},
		"sqlx": func(_ *testing.T, p *process) map[string]writer {
			x := sqlx.NewDb(p.db.DB, "postgres")
			return map[string]writer{
				"NamedExec": func(ctx context.Context, v int) error {
					_, err := x.NamedExecContext(ctx, `UPDATE items SET value = :value WHERE id = :id`, Item{ID: 1, Value: v})
					return err
				},
				"Get": func(ctx context.Context, v int) error {
					var got int
					return x.GetContext(ctx, &got, `UPDATE items SET value = $1 WHERE id = 1 RETURNING value`, v)
				},
				"Beginx": func(ctx context.Context, v int) error {
					tx, err := x.BeginTxx(ctx, nil)
					if err != nil {
						return err
					}
					defer tx.Rollback()
					tx.MustExecContext(ctx, `UPDATE items SET value = $1 WHERE id = 1`, v)
					return tx.Commit()
				},
			}
		},
		"bun": func(_ *testing.T, p *process) map[string]writer {
			b := bun.NewDB(p.db.DB, pgdialect.New())
			return map[string]writer{
				"Update": func(ctx context.Context, v int) error {
					_, err := b.NewUpdate().Model(&Item{ID: 1, Value: v}).WherePK().Exec(ctx)
					return err
				},
				"Insert": func(ctx context.Context, v int) error {
					_, err := b.NewInsert().Model(&Item{ID: 1, Value: v}).On("CONFLICT (id) DO UPDATE").Set("value = EXCLUDED.value").Returning("*").Exec(ctx)
					return err
				},
				"RunInTx": func(ctx context.Context, v int) error {
					return b.RunInTx(ctx, nil, func(ctx context.Context, tx bun.Tx) error {
						_, err := tx.NewUpdate().Model(&Item{ID: 1, Value: v}).WherePK().Exec(ctx)
						return err
					})
				},
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			eachDriver(t, func(t *testing.T, driver string) {
				p := start(t, options{driver: driver, url: database(t, items...), passive: true})
				value := 0
				for name, write := range open(t, p) {
					for range 3 {
						p.warm(t, 1, value)
						value++
						testservers.Must(t, write(t.Context(), value))
						if got := p.get(t, 1); got != value {
							t.Fatalf("%s: after the write of %d the answer is %d", name, value, got)
						}
					}
				}
			})
		})
	}
}
