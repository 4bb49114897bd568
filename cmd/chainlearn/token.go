package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"time"

	"github.com/chainlearn/chainlearn/internal/httpapi"
	"github.com/chainlearn/chainlearn/internal/learning"
)

type tokenCommand struct {
	databaseSettings
	secretSettings
	User string        `required:"" placeholder:"ID" help:"The user that the token is for."`
	TTL  time.Duration `name:"ttl" default:"24h" placeholder:"DURATION" help:"How long it is valid; default ${default}."`
}

func (s *tokenCommand) Run(env *environment) error {
	wrong := &settingsError{}
	db := s.databaseSettings.parse(wrong)
	s.secretSettings.check(db, wrong)
	id, err := learning.ParseID[learning.Profile](s.User)
	if err != nil {
		wrong.add("--user", "%v", err)
	}
	if s.TTL <= 0 {
		wrong.add("--ttl", "is %v: must be positive", s.TTL)
	}
	if err := wrong.err(); err != nil {
		return err
	}
	if _, err := os.Stat(db.path); db.path != "" && errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("there is no database %s yet: start the service first", db.path) // opening would make one
	}
	storage, err := openStorage(env.ctx, db, cacheOptions{}, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	defer storage.Close()
	tokens, err := s.tokens(db)
	if err != nil {
		return err
	}
	token, err := issueToken(env.ctx, storage, tokens, id, s.TTL)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(env.stdout, token)
	return err
}

func issueToken(ctx context.Context, storage learning.Storage, tokens *httpapi.Tokens, id learning.UserID, ttl time.Duration) (string, error) {
	user, err := storage.Profile(ctx, id)
	if errors.Is(err, learning.ErrNoRow) {
		return "", fmt.Errorf("there is no user %s", id)
	}
	if err != nil {
		return "", err
	}
	return tokens.Issue(user, ttl)
}
