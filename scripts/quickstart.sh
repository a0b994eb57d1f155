#!/usr/bin/env bash
# From nothing to polyps found in a video, and to a pre-trained model, in minutes: environment, sample data, report,
# training, what it learned, embeddings.
# OUTPUT chooses where the results go, EPOCHS how long the training takes.
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
OUTPUT="${OUTPUT:-$PWD/outputs/quickstart}"
SAMPLE="datasets/sample/data"
CONFIGS="bundle/endofm_pretraining/configs"
TRAINING="['$CONFIGS/train.json','$CONFIGS/small.json','$CONFIGS/tiny.json','$CONFIGS/learning.json']"
INFERENCE="['$CONFIGS/inference.json','$CONFIGS/tiny_inference.json']"

python datasets/sample/generate.py --output "$SAMPLE"

endofm predict "$SAMPLE/videos/video_013.mp4" --output "$OUTPUT/predict"

python -m monai.bundle run --config_file "$TRAINING" --bundle_root bundle/endofm_pretraining \
    --dataset_dir "$SAMPLE" --datalist "$SAMPLE/datalist.json" ${EPOCHS:+--epochs "$EPOCHS"} --resume True \
    --ckpt_dir "$OUTPUT/models" --output_dir "$OUTPUT"

python -m monai.bundle run --config_file "$INFERENCE" --bundle_root bundle/endofm_pretraining \
    --dataset_dir "$SAMPLE" --datalist "$SAMPLE/datalist.json" --section test \
    --weights "$OUTPUT/models/model.pt" --output_dir "$OUTPUT/embeddings"

cat <<END

Polyps were found in a sample video by the networks that come with the project, which learned of this very still:
  the report        $OUTPUT/predict/report.html   (open it in a browser)
  your own video    $VENV/bin/endofm predict VIDEO -o OUT

Endo-FM is pre-trained on the sample data (moved stills of PolypGen, CC BY 4.0; only for trying). You will find
  what it learned   $OUTPUT/report.html   (open it in a browser)
  checkpoint        $OUTPUT/models/checkpoint.pt   (backbone alone: model.pt)
  TensorBoard log   $VENV/bin/tensorboard --logdir $OUTPUT
  the views         $OUTPUT/views/0000001.png
  embeddings        $OUTPUT/embeddings/embeddings.npz and .csv
  embedding plot    $OUTPUT/embeddings/embeddings.png

The same on your own videos (every readable video below a folder):
  $VENV/bin/python -m monai.bundle run --config_file "['$CONFIGS/train.json','$CONFIGS/small.json']" \\
      --bundle_root bundle/endofm_pretraining --dataset_dir /path/to/videos --ckpt_dir outputs/mine/models --output_dir outputs/mine
small.json is a recipe for hundreds of clips; without it it is the published one, for tens of thousands. Both are
full-size models, for a GPU.
END
