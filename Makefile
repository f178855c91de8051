# The whole manual: setup, demo, test, fix, bench.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
EXTRAS ?= cpu,minilm,dev
export UV_FIND_LINKS ?= $(PIP_FIND_LINKS)
export TOKENIZERS_PARALLELISM = false

# A published tokenisation, where it lies beside the data.
LETTER := $(addprefix --given ,$(wildcard data/amazon2014-beauty/letter_sids.parquet))

# All models, and what a part of the hybrid is worth; where products are new, what slots alone are worth too.
WARM := '["hybrid","generator","dual_tower","sasrec","content_neighbours","bm25","cooccurrence","popularity","hybrid_without_generator","hybrid_without_trend"]'
JUDGED := $(WARM:]'=,"sasrec_with_neighbours"]')

# A run whose dual tower reads text, without categories in it; an encoder that a CPU trains in minutes.
TEXT := --config configs/grocery.yaml --split.protocol leave_one_out --vectors.model minilm --vectors.columns [title,brand] --run_dir runs/grocery/text
ENCODER := --dual_tower.text.encoder scratch --dual_tower.text.num_layers 2 --dual_tower.text.width 128 --dual_tower.text.num_heads 4 --dual_tower.text.vocab_size 3000 --dual_tower.text.length 16 --dual_tower.history_length 5 --dual_tower.identity_dropout 1.0 --dual_tower.training.batch_size 128 --dual_tower.training.learning_rate 1e-3 --dual_tower.training.num_epochs 1 --dual_tower.training.max_steps 300

.PHONY: setup demo test fix bench tables

setup: $(VENV)/.done

# A GPU machine: `make setup EXTRAS=gpu,minilm,dev` (or gpu-cu13) takes the CUDA builds of torch and FAISS.
$(VENV)/.done: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip install --python $(BIN)/python --constraint constraints.txt --editable '.[$(EXTRAS)]'
	touch $@

demo: setup
	$(BIN)/python eval/demo.py --config configs/grocery.yaml

test: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest

fix: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The figures of the README. The real data sets are described in data/README.md.
bench: setup
	$(BIN)/python eval/cold_start.py --config configs/grocery.yaml --record true
	$(BIN)/python eval/leave_one_out.py --config configs/beauty.yaml --seeds [0,1,2] --models $(WARM) --record true
	$(BIN)/python eval/leave_one_out.py --config configs/beauty.yaml --split.ties shuffled --seeds [0,1] --record true
	$(BIN)/python eval/temporal.py --config configs/beauty.yaml --models $(JUDGED) --record true
	$(BIN)/python eval/cold_start.py --config configs/beauty.yaml --seeds 5 --models $(JUDGED) --record true
	$(BIN)/python eval/bounds.py $(foreach seed,0 1 2 3 4,--run runs/beauty/cold_items/seed$(seed)) --record beauty
	$(BIN)/python eval/cold_start.py --config configs/instacart.yaml --seeds [0,1,2] --models $(JUDGED) --record true
	$(BIN)/python eval/tokenizer_quality.py --config configs/beauty.yaml --seeds [0,1,2] --record true
	$(BIN)/python eval/tokenizer_quality.py --config configs/beauty.yaml --study lambda --record true
	$(BIN)/python eval/tokenizer_quality.py --config configs/beauty.yaml --study ablation --tokenizer.training.num_epochs 6 --record true
	$(BIN)/python eval/bench_tokenizer.py --shards 10 --train-minutes 15 --reference true --learning-rate 3e-3 --record true
	$(BIN)/python eval/bench_decoding.py --record true
	$(BIN)/python eval/bench_training.py --config configs/beauty.yaml --split.protocol leave_one_out --record true
	$(BIN)/python eval/ablation.py --config configs/beauty.yaml --split.protocol leave_one_out --model generator --epochs 4 --record true
	$(BIN)/python eval/sids_compared.py --config configs/beauty.yaml --split.protocol leave_one_out --generator.training.num_epochs 4 --record true $(LETTER)
	$(BIN)/python eval/sids_compared.py --config configs/beauty.yaml --split.protocol leave_one_out --generator.training.num_epochs 4 --seeds [0,1,2] --only rqkmeans,rqvae --record true
	$(BIN)/python eval/sids_compared.py --config configs/beauty.yaml --seeds [0] --only rqkmeans,rqvae_plain,rqvae --model hybrid --record true
	$(BIN)/python eval/sids_compared.py --config configs/grocery.yaml --record true
	$(BIN)/python eval/tune.py --config configs/beauty.yaml --split.protocol leave_one_out --generator.training.num_epochs 4 --tune generator,dual_tower,sasrec --trials 5 --seconds 450 --cold_share 0.05 --record true
	$(BIN)/python eval/ablation.py --config configs/beauty.yaml --split.protocol leave_one_out --model dual_tower --cold_share 0.05 --record true
	$(BIN)/python eval/bench_dual_tower.py --config configs/grocery.yaml --record true
	$(BIN)/python eval/warm_start.py --config configs/beauty.yaml --seeds [0] --record true
	$(BIN)/python eval/bench_scale.py --record true
	$(BIN)/pressmark prepare --config configs/beauty.yaml --split.protocol leave_one_out
	$(BIN)/python eval/audit.py --run runs/beauty/leave_one_out/seed0 --rates [0.05] --record beauty --regressed [1]
	$(BIN)/python eval/audit.py --run runs/beauty/leave_one_out/seed0 --rates [0.02] --record beauty-2percent --regressed [1]
	$(BIN)/python eval/audit.py --run runs/beauty/leave_one_out/seed0 --rates [0.1] --record beauty-10percent --regressed [1]
	$(BIN)/python eval/audit.py --run runs/grocery/cold_items/seed0 --store data/grocery --record grocery
	$(BIN)/python eval/audit_vouching.py --run runs/grocery/cold_items/seed0 --record grocery
	$(BIN)/python eval/categorize.py --run runs/beauty/leave_one_out/seed0 --record beauty
	$(BIN)/pressmark prepare $(TEXT)
	$(BIN)/python src/train_dual_tower.py $(TEXT) $(ENCODER)
	$(BIN)/python eval/categorize.py --run runs/grocery/text --record grocery
	$(BIN)/python eval/terms.py --run runs/beauty/cold_items/seed0 --seeds 0 1 --record beauty
	$(BIN)/python eval/terms.py --run runs/grocery/cold_items/seed0 --seeds 0 --record grocery
	$(BIN)/python eval/bench_explorer.py --record true
	$(BIN)/python eval/pretrain_backbone.py --catalog data/grocery --catalog data/amazon2014-beauty --out runs/small-t5
	$(BIN)/python eval/backbones.py --config configs/grocery.yaml --name grocery_small --data.path data/grocery_small --data.grocery.num_products 600 --data.grocery.num_shoppers 1500 --tokenizer.level_sizes [32,32] --split.cold_valid_share 0.05 --pretrained runs/small-t5/pretrained --fresh runs/small-t5/fresh --record true
	$(BIN)/python eval/serving.py --run runs/beauty/leave_one_out/seed0 --users 800 --record true

tables: setup
	$(BIN)/python eval/tables.py
