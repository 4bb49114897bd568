package client

// This package is for the test that openapi.json is enough for a generator of clients: those of
// other languages are given the same.

//go:generate go run github.com/oapi-codegen/oapi-codegen/v2/cmd/oapi-codegen@v2.8.2 --config=config.yaml ../../httpapi/openapi.json
//go:generate sh -c "sha256sum < ../../httpapi/openapi.json > openapi.json.sha256"
