package main

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/chainlearn/chainlearn/internal/httpapi"
)

func TestFileFollowsTheCode(t *testing.T) {
	got, err := encode()
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, httpapi.Description()) {
		t.Error("openapi.json is not what the code has: go generate ./internal/httpapi")
	}
}

func TestEveryRouteIsDescribed(t *testing.T) {
	operations := map[string]httpapi.Operation{}
	for _, o := range httpapi.Operations() {
		operations[o.Method+" "+strings.TrimPrefix(o.Path, "/api/v1")] = o
		if o.ID == "" || o.Summary == "" || o.Status == 0 || o.Data == nil {
			t.Errorf("%s %s is not described", o.Method, o.Path)
		}
	}
	for _, r := range httpapi.Routes() {
		if _, ok := operations[r]; !ok {
			t.Errorf("%s is not described", r)
		}
	}
}

// A bound of a property that is no longer there bounds nothing.
func TestBoundsAreOfPropertiesThatExist(t *testing.T) {
	d, err := describe()
	if err != nil {
		t.Fatal(err)
	}
	for name := range bounds {
		component, property, _ := strings.Cut(name, ".")
		if schema := d.Components.Schemas[component]; schema == nil || schema.Value.Properties[property] == nil {
			t.Errorf("there is no %s", name)
		}
	}
}

func TestClientWasMadeOfTheFile(t *testing.T) {
	was, err := os.ReadFile("client/openapi.json.sha256")
	if err != nil {
		t.Fatal(err)
	}
	if is := fmt.Sprintf("%x  -\n", sha256.Sum256(httpapi.Description())); is != string(was) {
		t.Error("the client is of another openapi.json: go generate ./internal/openapi/client")
	}
}
