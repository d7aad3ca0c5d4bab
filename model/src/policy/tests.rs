mod attributes;
mod clients;
mod compiled;
mod reference;
mod scene;
mod tiers;
