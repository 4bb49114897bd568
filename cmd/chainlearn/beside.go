package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"time"

	"github.com/chainlearn/chainlearn/cache"
	"github.com/chainlearn/chainlearn/cache/driver"
	"github.com/chainlearn/chainlearn/internal/learning"
)

// besideSettings are those of a command that runs beside the service.
type besideSettings struct {
	databaseSettings
	poolSettings
	storeSettings
	logSettings
}

// besideTimeout bounds such a command: the opening of what it looks at, too.
const besideTimeout = time.Minute

// parse adds what is wrong to wrong.
func (s *besideSettings) parse(env *environment, wrong *settingsError) (databaseConfig, *slog.Logger) {
	db := s.databaseSettings.parse(wrong)
	s.poolSettings.parse(&db, wrong)
	s.storeSettings.check(wrong)
	return db, s.logger(env, wrong)
}

// beside is what a command looks at that runs beside the service: what serve opens, without a relay. It
// serves no requests and delivers nothing, so it sees whether the service does.
type beside struct {
	store   driver.Store
	cache   *cache.Cache
	storage storage
}

// openBeside opens what serve opens, all queries defined.
func openBeside(ctx context.Context, db databaseConfig, s storeSettings, log *slog.Logger) (_ *beside, err error) {
	if _, err := os.Stat(db.path); db.path != "" && errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("there is no database %s yet: start the service first", db.path) // opening would make one
	}
	b := &beside{}
	defer func() {
		if err != nil {
			err = errors.Join(err, b.Close())
		}
	}()
	store, storeTimeout, err := openStore(ctx, s.RedisURL, log)
	if err != nil {
		return nil, err
	}
	b.store = store
	if b.cache, err = cache.New(cache.Config{Store: store, StoreTimeout: storeTimeout, Logger: log}); err != nil {
		return nil, err
	}
	options := cacheOptions{noRelay: true}
	if s.RedisURL != "" { // a store of its own says nothing of the service's
		options.cache = b.cache
	}
	if b.storage, err = openStorage(ctx, db, options, log); err != nil {
		return nil, err
	}
	learning.New(b.cache, b.storage, learning.Config{})
	return b, nil
}

// Close closes what was opened.
func (b *beside) Close() error {
	var errs []error
	if b.storage != nil {
		errs = append(errs, b.storage.Close())
	}
	if b.cache != nil {
		errs = append(errs, b.cache.Close())
	}
	if b.store != nil {
		errs = append(errs, b.store.Close())
	}
	return errors.Join(errs...)
}
